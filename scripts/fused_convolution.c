/* Messages of one interaction of MACE, summed over neighbours, and their gradients: out[i, k, c] =
 * sum over edges e of i and pairs (a, k) of path p of t(a, k; Y_e) W[e, p, c] x[j, a, c],
 * where t is linear in the spherical harmonics Y. C, the number of channels, is fixed when this is compiled.
 */
#include <stdint.h>

typedef struct {
    int64_t n_pairs, n_terms, n_y, n_paths, n_x, n_out;
    const int32_t *path, *a, *k, *first; /* of each pair; terms of a pair are first[pair] .. first[pair + 1] */
    const int32_t *y;                    /* of each term */
    const float *value;
} Table;

static inline float coefficient(const Table *t, const float *y, int64_t pair) {
    float sum = 0;
    for (int32_t n = t->first[pair]; n < t->first[pair + 1]; n++) sum += t->value[n] * y[t->y[n]];
    return sum;
}

void forward(const Table *t, int64_t edges, const int64_t *send, const int64_t *receive, const float *restrict x,
             const float *restrict y, const float *restrict w, float *restrict out) {
    for (int64_t e = 0; e < edges; e++) {
        const float *xe = x + send[e] * t->n_x * C, *we = w + e * t->n_paths * C, *ye = y + e * t->n_y;
        float *oe = out + receive[e] * t->n_out * C;
        for (int64_t p = 0; p < t->n_pairs; p++) {
            const float s = coefficient(t, ye, p);
            const float *xp = xe + t->a[p] * C, *wp = we + t->path[p] * C;
            float *op = oe + t->k[p] * C;
            for (int c = 0; c < C; c++) op[c] += s * wp[c] * xp[c];
        }
    }
}

void backward(const Table *t, int64_t edges, const int64_t *send, const int64_t *receive, const float *restrict x,
              const float *restrict y, const float *restrict w, const float *restrict g, float *restrict gx,
              float *restrict gw) {
    for (int64_t e = 0; e < edges; e++) {
        const float *xe = x + send[e] * t->n_x * C, *we = w + e * t->n_paths * C, *ye = y + e * t->n_y;
        const float *ge = g + receive[e] * t->n_out * C;
        float *gxe = gx + send[e] * t->n_x * C, *gwe = gw + e * t->n_paths * C;
        for (int64_t p = 0; p < t->n_pairs; p++) {
            const float s = coefficient(t, ye, p);
            const float *xp = xe + t->a[p] * C, *wp = we + t->path[p] * C, *gp = ge + t->k[p] * C;
            float *gxp = gxe + t->a[p] * C, *gwp = gwe + t->path[p] * C;
            for (int c = 0; c < C; c++) {
                const float sg = s * gp[c];
                gxp[c] += sg * wp[c];
                gwp[c] += sg * xp[c];
            }
        }
    }
}
