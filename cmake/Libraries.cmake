# Both libraries are built as static and as shared from the same objects. NAME is the static one, which the program, the
# tests and the benchmarks link; NAME_shared exports what CR_API marks. credence::PUBLIC_NAME is whichever of the two
# BUILD_SHARED_LIBS asks for.
function(cr_add_library name public_name output_name)
  add_library(${name} STATIC)
  add_library(${name}_shared SHARED)
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${public_name}_static)
  # Binary compatible releases share a soname: those of one minor version while the major one is 0.
  set(soversion ${PROJECT_VERSION_MAJOR})
  if(soversion EQUAL 0)
    set(soversion ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  endif()
  set_target_properties(${name}_shared PROPERTIES EXPORT_NAME ${public_name}_shared
    VERSION ${PROJECT_VERSION} SOVERSION ${soversion})
  if(NOT CREDENCE_SANITIZE) # instrumented objects call their runtime
    target_link_options(${name}_shared PRIVATE LINKER:-z,defs)
  endif()
  foreach(target ${name} ${name}_shared)
    set_target_properties(${target} PROPERTIES OUTPUT_NAME ${output_name} LINKER_LANGUAGE C)
    target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
    cr_common_options(${target})
  endforeach()
  add_library(credence::${public_name}_static ALIAS ${name})
  add_library(credence::${public_name}_shared ALIAS ${name}_shared)
  if(BUILD_SHARED_LIBS)
    add_library(credence::${public_name} ALIAS ${name}_shared)
  else()
    add_library(credence::${public_name} ALIAS ${name})
  endif()
endfunction()

# Objects for both forms of a library, built once with the flags given after the sources.
function(cr_add_objects library objects)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "SOURCES;OPTIONS")
  add_library(${objects} OBJECT ${arg_SOURCES})
  cr_common_options(${objects})
  target_compile_options(${objects} PRIVATE ${arg_OPTIONS})
  target_sources(${library} PRIVATE $<TARGET_OBJECTS:${objects}>)
  target_sources(${library}_shared PRIVATE $<TARGET_OBJECTS:${objects}>)
endfunction()

# libcredence: everything of runtime/ but the program.
function(cr_add_runtime)
  cr_add_library(credence_runtime credence credence)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/runtime/*/*.c)
  list(FILTER sources EXCLUDE REGEX "/runtime/cli/")
  cr_add_objects(credence_runtime credence_runtime_objects SOURCES ${sources})
  target_link_libraries(credence_runtime_objects PRIVATE ${CR_DEPENDENCY_TARGETS} ${CR_THREADS_TARGET})
  foreach(form "" _shared)
    # An installed static library names the library of threads itself (Install.cmake), so that a user needs no C compiler.
    target_link_libraries(credence_runtime${form} PUBLIC credence_kernels${form}
      PRIVATE ${CR_DEPENDENCY_TARGETS} $<BUILD_INTERFACE:${CR_THREADS_TARGET}> m)
  endforeach()
endfunction()
