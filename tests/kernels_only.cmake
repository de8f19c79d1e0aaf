# Kernels without the runtime and without any library but libc: the tests of kernels/ with stand-ins for Check and
# jansson. In a cross build they run on the processor models of CR_CPUS.
add_library(cr_test_support STATIC support/kernel_test.c support/amx_run.c support/amx_trap.c
  support/attention_model.c support/fake_cpu.c support/lowrank_model.c support/qgemm_model.c
  support/qgemm_model_words.c support/qgemm_tables.c
  support/cross/check.c support/cross/jansson.c)
cr_common_options(cr_test_support)
target_include_directories(cr_test_support PUBLIC support/cross)
target_link_libraries(cr_test_support PUBLIC credence_kernels)

# Baseline, dot products (no bf16), and everything the emulator knows (dot products, i8mm, bf16).
set(CR_CPUS "")
if(CMAKE_CROSSCOMPILING AND CMAKE_SYSTEM_PROCESSOR STREQUAL aarch64)
  set(CR_CPUS cortex-a53 neoverse-n1 max)
  set(CR_ADDS_neoverse-n1 neon_dotprod)
  set(CR_ADDS_max neon_dotprod neon_i8mm neon_bf16)
endif()
# Tests of how tables are chosen: every tier of every processor.
set(CR_CHOICE test_cpu test_contracts)
# Tests whose reference takes as long as the rest; it is portable C and judged natively.
set(CR_SLOW_REFERENCE test_attention test_attention_bits)

# The tiers that a test walks on a processor, empty = does not run there. The baseline takes everything; another processor
# only the tiers it adds for which the family of that name has a file, the others being the code that ran already.
function(cr_walked_tiers test cpu result)
  set(tiers scalar neon)
  if(test IN_LIST CR_CHOICE)
    list(APPEND tiers ${CR_ADDS_${cpu}})
  elseif(NOT cpu STREQUAL cortex-a53)
    string(REGEX REPLACE "^test_([a-z0-9]+).*$" "\\1" family ${test})
    set(tiers "")
    foreach(tier ${CR_ADDS_${cpu}})
      if(EXISTS ${PROJECT_SOURCE_DIR}/kernels/${family}/${family}_${tier}.c)
        list(APPEND tiers ${tier})
      endif()
    endforeach()
  endif()
  if(test IN_LIST CR_SLOW_REFERENCE)
    list(REMOVE_ITEM tiers scalar)
  endif()
  string(REPLACE ";" "," tiers "${tiers}")
  set(${result} "${tiers}" PARENT_SCOPE)
endfunction()

file(GLOB area_tests CONFIGURE_DEPENDS kernels/test_*.c)
foreach(source ${area_tests})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  cr_common_options(${name})
  target_compile_options(${name} PRIVATE -Wno-pedantic -Wno-missing-prototypes)
  target_compile_definitions(${name} PRIVATE CR_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  target_link_libraries(${name} PRIVATE cr_test_support m)
  foreach(cpu ${CR_CPUS})
    cr_walked_tiers(${name} ${cpu} tiers)
    if(NOT tiers)
      continue()
    endif()
    add_test(NAME ${cpu}/${name} COMMAND ${name})
    set_tests_properties(${cpu}/${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300 ENVIRONMENT
      "QEMU_CPU=${cpu};CREDENCE_TEST_LIGHT=1;CREDENCE_TEST_TIERS=${tiers};CREDENCE_TEST_REQUIRE=${tiers}")
  endforeach()
  if(NOT CR_CPUS)
    add_test(NAME kernels/${name} COMMAND ${name})
    set_tests_properties(kernels/${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
  endif()
endforeach()
add_test(NAME checks/kernels COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/check_kernels.sh
  $<TARGET_FILE:credence_kernels> $<CONFIG>)
