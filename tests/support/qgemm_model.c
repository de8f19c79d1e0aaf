#include "tests/support/qgemm_model.h"

#define CR_AMX_MODEL 1
#define cr_qgemm_fwd_amx cr_qgemm_fwd_model
#define cr_qgemm_dx_amx cr_qgemm_dx_model
#include "kernels/qgemm/qgemm_amx.c"
