# Cross build for 64-bit Arm on Linux; programs run through qemu-user. Another compiler that can do it: clang, by
# -DCMAKE_C_COMPILER=clang.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(triple aarch64-linux-gnu)
if(NOT CMAKE_C_COMPILER)
  set(CMAKE_C_COMPILER ${triple}-gcc)
endif()
set(CMAKE_C_COMPILER_TARGET ${triple}) # for clang; gcc has it in its name
find_program(CR_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(CR_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${CR_QEMU} -L /usr/${triple})
endif()
set(CMAKE_FIND_ROOT_PATH /usr/${triple})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
