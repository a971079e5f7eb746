# find_package(sam3 0.1): the installed version, as the header beside it says, and whether it will do. Before 1.0 every minor
# version may break programs, after it every major one.

set(PACKAGE_VERSION "")
foreach(_sam3_up IN ITEMS "../../.." "../../../..")
  set(_sam3_header "${CMAKE_CURRENT_LIST_DIR}/${_sam3_up}/include/sam3.h")
  if(EXISTS "${_sam3_header}")
    file(STRINGS "${_sam3_header}" _sam3_lines REGEX "^#define SAM3_VERSION_(MAJOR|MINOR|PATCH) [0-9]+$")
    string(REGEX REPLACE "[^0-9;]*SAM3_VERSION_[A-Z]* ([0-9]+)" "\\1" _sam3_numbers "${_sam3_lines}")
    string(REPLACE ";" "." PACKAGE_VERSION "${_sam3_numbers}")
    break()
  endif()
endforeach()

set(PACKAGE_VERSION_COMPATIBLE FALSE)
set(PACKAGE_VERSION_EXACT FALSE)
if(PACKAGE_VERSION MATCHES "^([0-9]+)\\.([0-9]+)\\.[0-9]+$")
  set(_sam3_major "${CMAKE_MATCH_1}")
  set(_sam3_minor "${CMAKE_MATCH_2}")
  if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
  elseif(PACKAGE_VERSION VERSION_GREATER PACKAGE_FIND_VERSION AND PACKAGE_FIND_VERSION_MAJOR EQUAL _sam3_major
         AND (_sam3_major GREATER 0 OR PACKAGE_FIND_VERSION_MINOR EQUAL _sam3_minor))
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
  endif()
endif()
