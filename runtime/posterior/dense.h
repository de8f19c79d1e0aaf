/* dense: small dense matrices in double, for posteriors whose factors have at most some hundred columns.
 *
 * Row-major, contiguous. Memory is the caller's, nothing is kept, operations in a fixed order (same bits always). No
 * aliasing unless said. Sources: Golub and Van Loan, Matrix Computations (4th edition), sections 4.2 (Cholesky), 8.5
 * (cyclic Jacobi for symmetric matrices) and 8.6 (one-sided Jacobi).
 */
#ifndef CR_POSTERIOR_DENSE_H
#define CR_POSTERIOR_DENSE_H

#include <stdbool.h>
#include <stddef.h>

/* a [n][n] symmetric (lower half is read) = L L^T; L in the lower half, the upper half zero. False, with `a` spoilt,
 * when a is not positive definite to rounding or not finite. */
bool cr_dense_cholesky(double *a, size_t n);

/* Eigenvalues of a symmetric [n][n], largest first, and eigenvectors: column i of vectors [n][n] belongs to values[i].
 * a is spoilt. Residual and orthogonality within about n 2^-50 of the norm of a. False when a is not finite. */
bool cr_dense_eigen(double *a, size_t n, double *values, double *vectors);

/* Thin decomposition a [m][n] = U diag(d) V^T, n <= m: a becomes U diag(d) (orthogonal columns), d [n] largest first,
 * v [n][n] the right singular vectors as columns. Singular values to 2^-50 of the largest. False when not finite. */
bool cr_dense_svd(double *a, size_t m, size_t n, double *d, double *v);

#endif
