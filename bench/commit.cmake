# cmake -D SOURCE=DIR -D OUT=FILE -P commit.cmake: a header with the commit of SOURCE, empty where there is none. A file
# that says it already is left alone, so nothing is compiled again.
execute_process(COMMAND git describe --always --dirty WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(text "#define CR_BENCH_COMMIT \"${commit}\"\n")
set(kept "")
if(EXISTS ${OUT})
  file(READ ${OUT} kept)
endif()
if(NOT kept STREQUAL text)
  file(WRITE ${OUT} "${text}")
endif()
