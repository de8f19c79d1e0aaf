#include "runtime/posterior/bora.h"

#include <math.h>

#include "credence/kernels/math.h"

#define REAL float
#define OF(name) name##_f32
#include "runtime/posterior/bora_real.h"
#undef REAL
#undef OF
#define REAL double
#define OF(name) name##_f64
#include "runtime/posterior/bora_real.h"
