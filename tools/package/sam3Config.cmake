# find_package(sam3): the targets sam3::sam3, the shared library, and sam3::static, the static one with the system's
# libraries that it needs. What is installed of the two is there. Nothing here names a place: all is found from where this
# file lies, lib/cmake/sam3 or share/cmake/sam3 below the prefix.

get_filename_component(_sam3_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." REALPATH)
set(_sam3_reason "")
foreach(_sam3_lib IN ITEMS "lib/${CMAKE_LIBRARY_ARCHITECTURE}" lib lib64)
  if(EXISTS "${_sam3_prefix}/${_sam3_lib}/pkgconfig/sam3.pc")
    set(_sam3_libdir "${_sam3_prefix}/${_sam3_lib}")
    break()
  endif()
endforeach()
if(NOT _sam3_libdir)
  # lib/x86_64-linux-gnu/cmake/sam3 lies one folder deeper.
  get_filename_component(_sam3_libdir "${CMAKE_CURRENT_LIST_DIR}/../.." REALPATH)
  get_filename_component(_sam3_prefix "${_sam3_libdir}/../.." REALPATH)
endif()
set(_sam3_shared "${_sam3_libdir}/libsam3${CMAKE_SHARED_LIBRARY_SUFFIX}")
set(_sam3_static "${_sam3_libdir}/libsam3${CMAKE_STATIC_LIBRARY_SUFFIX}")

if(NOT EXISTS "${_sam3_libdir}/pkgconfig/sam3.pc" OR NOT EXISTS "${_sam3_prefix}/include/sam3.h")
  set(_sam3_reason "expected pkgconfig/sam3.pc in ${_sam3_libdir} and include/sam3.h in ${_sam3_prefix}")
elseif(NOT EXISTS "${_sam3_shared}" AND NOT EXISTS "${_sam3_static}")
  set(_sam3_reason "expected ${_sam3_shared} or ${_sam3_static}")
endif()

if(_sam3_reason)
  set(sam3_FOUND FALSE)
  set(sam3_NOT_FOUND_MESSAGE "${_sam3_reason}")
else()
  if(EXISTS "${_sam3_shared}" AND NOT TARGET sam3::sam3)
    # The file behind the links, whose own name for itself is what programs are going to look for.
    get_filename_component(_sam3_file "${_sam3_shared}" REALPATH)
    add_library(sam3::sam3 SHARED IMPORTED)
    set_target_properties(sam3::sam3 PROPERTIES
      IMPORTED_LOCATION "${_sam3_file}"
      INTERFACE_INCLUDE_DIRECTORIES "${_sam3_prefix}/include")
  endif()
  if(EXISTS "${_sam3_static}" AND NOT TARGET sam3::static)
    # What the system has to add is known to one file alone.
    file(STRINGS "${_sam3_libdir}/pkgconfig/sam3.pc" _sam3_private REGEX "^Libs\\.private:")
    string(REGEX REPLACE "^Libs\\.private:[ ]*" "" _sam3_private "${_sam3_private}")
    separate_arguments(_sam3_private UNIX_COMMAND "${_sam3_private}")
    add_library(sam3::static STATIC IMPORTED)
    set_target_properties(sam3::static PROPERTIES
      IMPORTED_LOCATION "${_sam3_static}"
      INTERFACE_INCLUDE_DIRECTORIES "${_sam3_prefix}/include"
      INTERFACE_LINK_LIBRARIES "${_sam3_private}")
  endif()
endif()
unset(_sam3_prefix)
unset(_sam3_libdir)
unset(_sam3_lib)
unset(_sam3_shared)
unset(_sam3_static)
unset(_sam3_file)
unset(_sam3_private)
unset(_sam3_reason)
