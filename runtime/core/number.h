/* number: figures as text with "." before the decimals, whatever the locale of the process. */
#ifndef CR_CORE_NUMBER_H
#define CR_CORE_NUMBER_H

enum { CR_NUMBER_BYTES = 32, CR_NUMBER_DECIMALS = 9 };

/* With so many decimals, at most CR_NUMBER_DECIMALS; ties away from zero. From 1e9 on without decimals, which say
 * nothing there, and no more than 1e15. "-" when it is not finite. Returns out. */
char *cr_number_fixed(char out[CR_NUMBER_BYTES], double value, int decimals);

/* As "%g" prints it in the C locale. Returns out. */
char *cr_number_short(char out[CR_NUMBER_BYTES], double value);

#endif
