# One object library per CPU tier, each with its own flags; a source belongs to a tier by its suffix.
set(CR_X86_TIERS avx2 avx512 avx512_bf16)
set(CR_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(CR_FLAGS_avx512 ${CR_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512)
set(CR_FLAGS_avx512_bf16 ${CR_FLAGS_avx512} -mavx512bf16)

# Vector code takes constants through inline functions, which needs an optimiser: a host that builds us as a folder
# without one gets the least that works.
set(CR_FLAGS_LEAST "$<$<CONFIG:Debug>:-O1>$<$<STREQUAL:$<CONFIG>,>:-O2>")

# libcredence_kernels
function(cr_add_kernels)
  cr_add_library(credence_kernels kernels credence_kernels)
  target_link_libraries(credence_kernels PUBLIC m)
  target_link_libraries(credence_kernels_shared PRIVATE m)
  file(GLOB all_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*/*.c)
  set(portable ${all_sources})
  list(FILTER portable EXCLUDE REGEX "_(avx2|avx512|avx512_bf16|amx|neon[a-z0-9_]*)\\.c$")
  cr_add_objects(credence_kernels credence_kernels_portable SOURCES ${portable} OPTIONS ${CR_FLAGS_LEAST})
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  foreach(tier ${CR_X86_TIERS})
    set(sources ${all_sources})
    list(FILTER sources INCLUDE REGEX "_${tier}\\.c$")
    if(sources)
      cr_add_objects(credence_kernels credence_kernels_${tier} SOURCES ${sources}
        OPTIONS ${CR_FLAGS_${tier}} ${CR_FLAGS_LEAST})
    endif()
  endforeach()
endfunction()
