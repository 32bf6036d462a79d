// For sanitizer builds, otherwise empty: suppressions for the Vulkan loader, drivers and layers,
// which we can neither fix nor rebuild. Called by the sanitizers' runtime. Our own code stays
// checked.
#include "vk_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int dlclose(void *handle);
const char *__lsan_default_options(void);
const char *__lsan_default_suppressions(void);
const char *__tsan_default_suppressions(void);

// The loader unloads drivers when an instance closes; reports about them could then no longer be
// matched by name.
int dlclose(void *handle)
{
    return 0;
}

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

// lavapipe leaks 128 bytes per opened device; LLVM and the validation layer keep tables.
const char *__lsan_default_suppressions(void)
{
    return "leak:libvulkan_lvp\n"
           "leak:libLLVM\n"
           "leak:libVkLayer_\n";
}

// The checker cannot see Mesa's queues and futexes, nor machine code generated at run time.
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libvulkan_lvp\n"
           "called_from_lib:libVkLayer_khronos_validation\n"
           "called_from_lib:libVkLayer_MESA_device_select\n"
           "called_from_lib:libLLVM\n"
           "race:libvulkan_lvp\n"
           "race:libLLVM\n"
           "race:libVkLayer_\n"
           "mutex:libvulkan_lvp\n"
           "mutex:libVkLayer_\n"
           "thread:libvulkan_lvp\n"
           "deadlock:libvulkan_lvp\n"
           "deadlock:libVkLayer_\n"
           "mutex:__register_frame_info\n";
}

#endif

// Called when an instance opens, so that the linker keeps this file.
void vk_sanitize(void) {}
