/*
 * Mesa's llvmpipe under the name of SwiftShader, for a Chromium whose WebGPU is to be measured on it.
 *
 * Chromium takes an adapter that a CPU plays only where its ids are SwiftShader's: from others it wants images that it can share, which
 * llvmpipe cannot without a kernel's help. This library stands in the place of SwiftShader's in a copy of Chromium's folder. It hands every
 * call on to llvmpipe, and gives out SwiftShader's ids as llvmpipe's. Mesa must be new enough for Dawn: 25 is, 22.3 is not.
 *
 *     cp -r /usr/lib/chromium chromium
 *     cc -shared -fPIC -o chromium/libvk_swiftshader.so bench/llvmpipe_as_swiftshader.c -ldl
 *     sed -i 's/"api_version": *"[0-9.]*"/"api_version": "1.4.305"/' chromium/vk_swiftshader_icd.json
 *     LLVMPIPE=/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so deno run -A bench/tab_example.ts --chromium chromium/chromium
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef void (*Function)(void);
typedef Function (*Lookup)(void *instance, const char *name);

/* VkPhysicalDeviceProperties begins with the version of the API, the driver's, and these two. */
enum { VENDOR = 2, DEVICE = 3 };
/* VkPhysicalDeviceProperties2 has them behind its type and its pointer to what follows. */
enum { PROPERTIES2_HEADER = 16 };

static void *driver;
static void (*properties)(void *device, uint32_t *found);
static void (*properties2)(void *device, char *found);
static void (*properties2_khr)(void *device, char *found);

static void *symbol(const char *name) {
  if (!driver) driver = dlopen(getenv("LLVMPIPE"), RTLD_NOW | RTLD_LOCAL);
  if (!driver) abort();
  return dlsym(driver, name);
}

static void rename_device(uint32_t *found) {
  found[VENDOR] = 0x1AE0;
  found[DEVICE] = 0xC0DE;
}

static void renamed(void *device, uint32_t *found) {
  properties(device, found);
  rename_device(found);
}

static void renamed2(void *device, char *found) {
  properties2(device, found);
  rename_device((uint32_t *)(found + PROPERTIES2_HEADER));
}

static void renamed2_khr(void *device, char *found) {
  properties2_khr(device, found);
  rename_device((uint32_t *)(found + PROPERTIES2_HEADER));
}

static Function replaced(const char *name, Function function) {
  if (!function) return NULL;
  if (!strcmp(name, "vkGetPhysicalDeviceProperties")) {
    properties = (void *)function;
    return (Function)renamed;
  }
  if (!strcmp(name, "vkGetPhysicalDeviceProperties2")) {
    properties2 = (void *)function;
    return (Function)renamed2;
  }
  if (!strcmp(name, "vkGetPhysicalDeviceProperties2KHR")) {
    properties2_khr = (void *)function;
    return (Function)renamed2_khr;
  }
  return function;
}

EXPORTED uint32_t vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
  return ((uint32_t(*)(uint32_t *))symbol("vk_icdNegotiateLoaderICDInterfaceVersion"))(version);
}

EXPORTED Function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
  return replaced(name, ((Lookup)symbol("vk_icdGetInstanceProcAddr"))(instance, name));
}

EXPORTED Function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
  return replaced(name, ((Lookup)symbol("vk_icdGetPhysicalDeviceProcAddr"))(instance, name));
}

/* Dawn asks without a loader between. */
EXPORTED Function vkGetInstanceProcAddr(void *instance, const char *name) {
  return vk_icdGetInstanceProcAddr(instance, name);
}
