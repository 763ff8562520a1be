/* Compiled with the flags of avx2 (setup.py), called only where the CPU has it. */
#if defined(__x86_64__)
#define KERNELS longlode_avx2
#define INSTRUCTION_SET "avx2"
#include "kernels.h"
#else
typedef int nothing_here; /* a translation unit may not be empty */
#endif
