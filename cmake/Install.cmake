# What `cmake --install` puts in place: both libraries in both forms, headers, a CMake package, pkg-config files, the
# program and its manual page. Every file finds the others relative to itself, so an installed tree may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(cr_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/credence)

install(DIRECTORY include/credence DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
set(cr_installed credence_kernels credence_kernels_shared)
if(CREDENCE_BUILD_RUNTIME)
  list(APPEND cr_installed credence_runtime credence_runtime_shared)
  set_target_properties(credence_runtime_shared PROPERTIES INSTALL_RPATH "$ORIGIN")
endif()
install(TARGETS ${cr_installed} EXPORT credence-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT credence-targets NAMESPACE credence:: DESTINATION ${cr_package_dir})

# The OpenMP runtime by name for those who link the static library; its folder too where the linker would not look.
set(cr_openmp_link "")
if(NOT CREDENCE_OPENMP)
  set(cr_openmp_link "${CMAKE_THREAD_LIBS_INIT}") # empty where threads are part of the C library
endif()
foreach(name IN LISTS OpenMP_C_LIB_NAMES)
  get_filename_component(folder "${OpenMP_${name}_LIBRARY}" DIRECTORY)
  get_filename_component(folder "${folder}" REALPATH)
  set(known OFF)
  foreach(implicit IN LISTS CMAKE_C_IMPLICIT_LINK_DIRECTORIES)
    get_filename_component(implicit "${implicit}" REALPATH)
    if(implicit STREQUAL folder)
      set(known ON)
    endif()
  endforeach()
  if(NOT known)
    string(APPEND cr_openmp_link " -L${folder}")
  endif()
  string(APPEND cr_openmp_link " -l${name}")
endforeach()
string(STRIP "${cr_openmp_link}" cr_openmp_link)
if(CREDENCE_BUILD_RUNTIME)
  separate_arguments(link_items UNIX_COMMAND "${cr_openmp_link}")
  foreach(item IN LISTS link_items)
    target_link_libraries(credence_runtime PRIVATE $<INSTALL_INTERFACE:${item}>)
  endforeach()
endif()

string(REPLACE ";" " " cr_dependencies "${CR_DEPENDENCIES}")
configure_package_config_file(cmake/credence-config.cmake.in ${PROJECT_BINARY_DIR}/credence-config.cmake
  INSTALL_DESTINATION ${cr_package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/credence-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/credence-config.cmake ${PROJECT_BINARY_DIR}/credence-config-version.cmake
  DESTINATION ${cr_package_dir})

# pkg-config: prefix is the way back from the folder of the .pc file.
file(RELATIVE_PATH cr_pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" cr_pc_prefix ${cr_pc_prefix})
set(cr_pc_files credence-kernels)
if(CREDENCE_BUILD_RUNTIME)
  list(APPEND cr_pc_files credence)
endif()
foreach(name IN LISTS cr_pc_files)
  configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

if(CREDENCE_BUILD_RUNTIME)
  install(TARGETS credence RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  if(NOT CMAKE_CROSSCOMPILING)
    add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/credence.1 COMMAND credence --man > ${PROJECT_BINARY_DIR}/credence.1
      DEPENDS credence COMMENT "The manual page, printed by the program" VERBATIM)
    add_custom_target(credence_manual ALL DEPENDS ${PROJECT_BINARY_DIR}/credence.1)
    install(FILES ${PROJECT_BINARY_DIR}/credence.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  endif()
endif()
