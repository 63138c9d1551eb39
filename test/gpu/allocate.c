/*
 * Holds device memory through the driver API, which every machine with a driver has:
 * allocate <device> <MiB>; prints "held" and waits to be killed.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef int (*call_uint)(unsigned int);
typedef int (*call_get)(int *, int);
typedef int (*call_context)(void **, unsigned int, int);
typedef int (*call_alloc)(unsigned long long *, size_t);
typedef int (*call_set)(unsigned long long, unsigned char, size_t);

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
  if (!cuda) { fprintf(stderr, "%s\n", dlerror()); return 3; }
  int device;
  void *context;
  unsigned long long memory;
  size_t bytes = (size_t)atoi(argv[2]) << 20;
  int failed = ((call_uint)dlsym(cuda, "cuInit"))(0);
  if (!failed) failed = ((call_get)dlsym(cuda, "cuDeviceGet"))(&device, atoi(argv[1]));
  if (!failed) failed = ((call_context)dlsym(cuda, "cuCtxCreate_v2"))(&context, 0, device);
  if (!failed) failed = ((call_alloc)dlsym(cuda, "cuMemAlloc_v2"))(&memory, bytes);
  if (!failed) failed = ((call_set)dlsym(cuda, "cuMemsetD8_v2"))(memory, 1, bytes);
  if (failed) { fprintf(stderr, "CUDA error %d\n", failed); return 4; }
  puts("held");
  fflush(stdout);
  pause();
  return 0;
}
