/* What every CPU of the architecture has: SSE2 on x86-64, NEON on ARM. */
#define KERNELS longlode_baseline
#define INSTRUCTION_SET "baseline"
#include "kernels.h"
