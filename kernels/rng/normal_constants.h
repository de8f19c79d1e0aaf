/* normal_constants: the polynomials of the normals, for the scalar definition and the lanes (normal_lanes.h).
 *
 * Own minimax fits (Remez exchange, coefficients rounded to f32 one after another, the rest fitted again): -2 ln u
 * within 2^-25.6 of itself, sin within 2^-25 of itself, cos within 2^-29.8.
 */
#ifndef CR_RNG_NORMAL_CONSTANTS_H
#define CR_RNG_NORMAL_CONSTANTS_H

/* Bits of sqrt(1/2): the least mantissa after the split. */
#define CR_NORMAL_ROOT_HALF 0x3f3504f3
#define CR_NORMAL_2LN2 (-0x1.62e43p0f)
/* -2 ln(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1] */
#define CR_NORMAL_LOG                                                                                                  \
    {                                                                                                                  \
        -0x1p+1f, 0x1.ffffc2p-1f, -0x1.5557aap-1f, 0x1.0010bap-1f, -0x1.98b334p-2f, 0x1.51b044p-2f, -0x1.313cbp-2f,    \
            0x1.2ea3dep-2f, -0x1.7c6644p-3f                                                                            \
    }
/* sin(pi t / 2) / t and cos(pi t / 2) in t^2 on [0, 1] */
#define CR_NORMAL_SIN                                                                                                  \
    {                                                                                                                  \
        0x1.921fb6p+0f, -0x1.4abbfp-1f, 0x1.466f3ep-4f, -0x1.32e972p-8f, 0x1.47018ep-13f                               \
    }
#define CR_NORMAL_COS                                                                                                  \
    {                                                                                                                  \
        1.0f, -0x1.3bd3ccp+0f, 0x1.03c1d4p-2f, -0x1.55cd26p-6f, 0x1.e0a1e2p-11f, -0x1.889fc6p-16f                      \
    }

#endif
