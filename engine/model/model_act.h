// Maps an activation of a config file to the operators' enum. For the networks.
#ifndef IMAGEND_MODEL_ACT_H
#define IMAGEND_MODEL_ACT_H

#include "hfconfig.h"
#include "ops.h"

static inline enum op_act model_act(enum hfconfig_act act)
{
    switch (act) {
    case HF_ACT_RELU: return ACT_RELU;
    case HF_ACT_SILU: return ACT_SILU;
    case HF_ACT_GELU: return ACT_GELU;
    case HF_ACT_GELU_TANH: return ACT_GELU_TANH;
    }
    return ACT_NONE;
}

#endif
