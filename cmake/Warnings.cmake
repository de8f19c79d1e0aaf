# What every target of the project shares: includes from the root, flags, the architecture. Warnings are errors where
# the set of warnings is known: on the compilers of Debian 12. Newer ones may warn of more, which must not stop a user's
# build.
set(known_compiler OFF)
if((CMAKE_C_COMPILER_ID STREQUAL GNU AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13) OR
   (CMAKE_C_COMPILER_ID STREQUAL Clang AND CMAKE_C_COMPILER_VERSION VERSION_LESS 15))
  set(known_compiler ON)
endif()
option(CREDENCE_WERROR "Treat warnings as errors" ${known_compiler})

function(cr_common_options target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  set(x86 0)
  set(neon 0)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(x86 1)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(neon 1)
  endif()
  target_compile_definitions(${target} PRIVATE CR_HAVE_X86=${x86} CR_HAVE_NEON=${neon})
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
    -Wcast-qual -Wwrite-strings -Wundef -Wno-psabi $<$<BOOL:${CREDENCE_WERROR}>:-Werror>
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
  if(CREDENCE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${CREDENCE_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${CREDENCE_SANITIZE})
  endif()
endfunction()
