/* Compiled with the flags of avx512 (setup.py), called only where the CPU has it. */
#if defined(__x86_64__)
#define KERNELS longlode_avx512
#define INSTRUCTION_SET "avx512"
#include "kernels.h"
#else
typedef int nothing_here; /* a translation unit may not be empty */
#endif
