/* chains: F(0) F(1) ...: chains as separate variables, because compilers leave arrays of vectors in memory. */
#ifndef CR_PEAK_CHAINS_H
#define CR_PEAK_CHAINS_H

#define CR_CHAINS_4(F) F(0) F(1) F(2) F(3)
#define CR_CHAINS_8(F) CR_CHAINS_4(F) F(4) F(5) F(6) F(7)
#define CR_CHAINS_12(F) CR_CHAINS_8(F) F(8) F(9) F(10) F(11)
#define CR_CHAINS_16(F) CR_CHAINS_12(F) F(12) F(13) F(14) F(15)

#endif
