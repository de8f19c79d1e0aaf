/* shape_model: the shapes of a model without any weights, for tests of adapters. */
#ifndef CR_TESTS_SHAPE_MODEL_H
#define CR_TESTS_SHAPE_MODEL_H

#include "runtime/model/model.h"

/* Width 32, feed-forward 48, 4 heads of 8, 2 key-value heads; base_hash 0x0123456789abcdef. The layers are static:
 * never close it. */
enum { CR_SHAPE_LAYERS = 3, CR_SHAPE_EMBD = 32, CR_SHAPE_FF = 48, CR_SHAPE_KV = 16, CR_SHAPE_HEAD = 8 };

struct cr_model cr_shape_model(const char *architecture);

#endif
