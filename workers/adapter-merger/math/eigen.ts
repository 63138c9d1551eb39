/** Eigenvalues, descending, and their orthonormal vectors: `vectors[i * n + j]` is entry i of vector j. */
export interface Eigen {
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

/** A dense square matrix of float64 under work, row-major. */
class Square {
  readonly n: number;
  readonly data: Float64Array;

  constructor(n: number, data: Float64Array) {
    this.n = n;
    this.data = data;
  }

  get(row: number, column: number): number {
    return this.data[row * this.n + column] ?? 0;
  }

  set(row: number, column: number, value: number): void {
    this.data[row * this.n + column] = value;
  }
}

/**
 * All eigenvalues and eigenvectors of a symmetric matrix (n x n, row-major; only the lower triangle
 * is read), by Householder tridiagonalisation and implicit QL.
 *
 * Source: Bowdler, Martin, Reinsch, Wilkinson, "The QR and QL algorithms for symmetric matrices"
 * (1968), in the arrangement of EISPACK's tred2 and tql2.
 */
export function symmetricEigen(matrix: Float64Array, n: number): Eigen {
  // A plain sum of scale and matrix would let a denormal scale stall the iteration.
  const scale = matrix.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  if (n === 0 || scale === 0) return { values: new Float64Array(n), vectors: identity(n) };
  const v = new Square(
    n,
    matrix.map((value) => value / scale),
  );
  const d = new Float64Array(n);
  const e = new Float64Array(n);
  tridiagonalise(v, d, e);
  accumulateTransform(v, d, e);
  implicitQl(v, d, e);
  return sorted(
    v,
    d.map((value) => value * scale),
  );
}

function identity(n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i += 1) out[i * n + i] = 1;
  return out;
}

function at(values: Float64Array, index: number): number {
  return values[index] ?? 0;
}

function tridiagonalise(v: Square, d: Float64Array, e: Float64Array): void {
  const { n } = v;
  for (let j = 0; j < n; j += 1) d[j] = v.get(n - 1, j);
  for (let i = n - 1; i > 0; i -= 1) {
    let scale = 0;
    for (let k = 0; k < i; k += 1) scale += Math.abs(at(d, k));
    let h = 0;
    if (scale === 0) {
      e[i] = at(d, i - 1);
      for (let j = 0; j < i; j += 1) {
        d[j] = v.get(i - 1, j);
        v.set(i, j, 0);
        v.set(j, i, 0);
      }
    } else {
      h = reflect(v, d, e, { i, scale });
    }
    d[i] = h;
  }
}

function reflect(
  v: Square,
  d: Float64Array,
  e: Float64Array,
  { i, scale }: { i: number; scale: number },
): number {
  let h = 0;
  for (let k = 0; k < i; k += 1) {
    d[k] = at(d, k) / scale;
    h += at(d, k) ** 2;
  }
  const f = at(d, i - 1);
  const g = f > 0 ? -Math.sqrt(h) : Math.sqrt(h);
  e[i] = scale * g;
  h -= f * g;
  d[i - 1] = f - g;
  e.fill(0, 0, i);
  multiplySymmetric(v, d, e, i);
  let sum = 0;
  for (let j = 0; j < i; j += 1) {
    e[j] = at(e, j) / h;
    sum += at(e, j) * at(d, j);
  }
  const half = sum / (h + h);
  for (let j = 0; j < i; j += 1) e[j] = at(e, j) - half * at(d, j);
  for (let j = 0; j < i; j += 1) {
    const dj = at(d, j);
    const ej = at(e, j);
    for (let k = j; k < i; k += 1) v.set(k, j, v.get(k, j) - dj * at(e, k) - ej * at(d, k));
    d[j] = v.get(i - 1, j);
    v.set(i, j, 0);
  }
  return h;
}

/** `e = V d` over the leading i x i block, and keeps d in column i. */
function multiplySymmetric(v: Square, d: Float64Array, e: Float64Array, i: number): void {
  for (let j = 0; j < i; j += 1) {
    const f = at(d, j);
    v.set(j, i, f);
    let g = at(e, j) + v.get(j, j) * f;
    for (let k = j + 1; k < i; k += 1) {
      g += v.get(k, j) * at(d, k);
      e[k] = at(e, k) + v.get(k, j) * f;
    }
    e[j] = g;
  }
}

function accumulateTransform(v: Square, d: Float64Array, e: Float64Array): void {
  const { n } = v;
  for (let i = 0; i < n - 1; i += 1) {
    v.set(n - 1, i, v.get(i, i));
    v.set(i, i, 1);
    const h = at(d, i + 1);
    if (h !== 0) applyReflector(v, d, { i, h });
    for (let k = 0; k <= i; k += 1) v.set(k, i + 1, 0);
  }
  for (let j = 0; j < n; j += 1) {
    d[j] = v.get(n - 1, j);
    v.set(n - 1, j, 0);
  }
  v.set(n - 1, n - 1, 1);
  e[0] = 0;
}

function applyReflector(v: Square, d: Float64Array, { i, h }: { i: number; h: number }): void {
  for (let k = 0; k <= i; k += 1) d[k] = v.get(k, i + 1) / h;
  for (let j = 0; j <= i; j += 1) {
    let g = 0;
    for (let k = 0; k <= i; k += 1) g += v.get(k, i + 1) * v.get(k, j);
    for (let k = 0; k <= i; k += 1) v.set(k, j, v.get(k, j) - g * at(d, k));
  }
}

const MAX_SWEEPS = 60;

function implicitQl(v: Square, d: Float64Array, e: Float64Array): void {
  const { n } = v;
  for (let i = 1; i < n; i += 1) e[i - 1] = at(e, i);
  e[n - 1] = 0;
  let shift = 0;
  let largest = 0;
  for (let l = 0; l < n; l += 1) {
    largest = Math.max(largest, Math.abs(at(d, l)) + Math.abs(at(e, l)));
    let m = l;
    while (m < n - 1 && Math.abs(at(e, m)) > Number.EPSILON * largest) m += 1;
    let isSettled = m === l;
    for (let sweep = 0; !isSettled && sweep < MAX_SWEEPS; sweep += 1) {
      shift += sweepQl(v, d, e, { l, m });
      isSettled = Math.abs(at(e, l)) <= Number.EPSILON * largest;
    }
    d[l] = at(d, l) + shift;
    e[l] = 0;
  }
}

/** One implicit QL sweep over l..m; returns the shift it took off the diagonal. */
function sweepQl(
  v: Square,
  d: Float64Array,
  e: Float64Array,
  { l, m }: { l: number; m: number },
): number {
  let g = at(d, l);
  let p = (at(d, l + 1) - g) / (2 * at(e, l));
  const r = p < 0 ? -Math.hypot(p, 1) : Math.hypot(p, 1);
  d[l] = at(e, l) / (p + r);
  d[l + 1] = at(e, l) * (p + r);
  const nextDiagonal = at(d, l + 1);
  const h = g - at(d, l);
  for (let i = l + 2; i < v.n; i += 1) d[i] = at(d, i) - h;
  p = at(d, m);
  const firstOff = at(e, l + 1);
  let [c, c2, c3, s, s2] = [1, 1, 1, 0, 0];
  for (let i = m - 1; i >= l; i -= 1) {
    [c3, c2, s2] = [c2, c, s];
    g = c * at(e, i);
    const q = c * p;
    const radius = Math.hypot(p, at(e, i));
    e[i + 1] = s * radius;
    s = at(e, i) / radius;
    c = p / radius;
    p = c * at(d, i) - s * g;
    d[i + 1] = q + s * (c * g + s * at(d, i));
    rotateColumns(v, i, c, s);
  }
  p = (-s * s2 * c3 * firstOff * at(e, l)) / nextDiagonal;
  e[l] = s * p;
  d[l] = c * p;
  return h;
}

function rotateColumns(v: Square, column: number, c: number, s: number): void {
  for (let k = 0; k < v.n; k += 1) {
    const right = v.get(k, column + 1);
    const left = v.get(k, column);
    v.set(k, column + 1, s * left + c * right);
    v.set(k, column, c * left - s * right);
  }
}

function sorted({ n, data }: Square, d: Float64Array): Eigen {
  const order = Array.from(d.keys()).sort((a, b) => at(d, b) - at(d, a) || a - b);
  const vectors = new Float64Array(n * n);
  for (const [to, from] of order.entries()) {
    for (let row = 0; row < n; row += 1) vectors[row * n + to] = data[row * n + from] ?? 0;
  }
  return { values: Float64Array.from(order, (index) => at(d, index)), vectors };
}
