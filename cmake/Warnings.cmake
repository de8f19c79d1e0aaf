# Flags that every target of the project shares.
function(cr_common_options target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
    -Wcast-qual -Wwrite-strings -Wundef -Wno-psabi -Werror
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
  if(CREDENCE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${CREDENCE_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${CREDENCE_SANITIZE})
  endif()
endfunction()
