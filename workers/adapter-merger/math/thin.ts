/** Small dense algebra on matrices with few rows ("thin"), accumulated in float64. */

/** A row-major float32 matrix in ordinary memory. */
export interface Thin {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array<ArrayBuffer>;
}

export function thin(rows: number, columns: number): Thin {
  return { rows, columns, values: new Float32Array(rows * columns) };
}

export function transpose({ rows, columns, values }: Thin): Thin {
  const out = thin(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      out.values[column * rows + row] = values[row * columns + column] ?? 0;
    }
  }
  return out;
}

/** Rows of all matrices below each other; `columns` is common to all. */
export function stackRows(parts: readonly Thin[], columns: number): Thin {
  const out = thin(
    parts.reduce((sum, { rows }) => sum + rows, 0),
    columns,
  );
  let at = 0;
  for (const { values } of parts) {
    out.values.set(values, at);
    at += values.length;
  }
  return out;
}

/** `x * x^T`, rows x rows. */
export function gram({ rows, columns, values }: Thin): Float64Array {
  const out = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i += 1) {
    for (let j = 0; j <= i; j += 1) {
      const value = dot(values, i * columns, j * columns, columns);
      out[i * rows + j] = value;
      out[j * rows + i] = value;
    }
  }
  return out;
}

function at(values: Float32Array, index: number): number {
  return values[index] ?? 0;
}

/** Four partial sums: the additions of one need not wait for each other. */
export function dot(values: Float32Array, x: number, y: number, length: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 4 <= length; k += 4) {
    a += at(values, x + k) * at(values, y + k);
    b += at(values, x + k + 1) * at(values, y + k + 1);
    c += at(values, x + k + 2) * at(values, y + k + 2);
    d += at(values, x + k + 3) * at(values, y + k + 3);
  }
  for (; k < length; k += 1) a += at(values, x + k) * at(values, y + k);
  return a + b + (c + d);
}

/** `t * x`, where t is `outRows x x.rows` in float64; rounded once, at the end. */
export function apply(t: Float64Array, outRows: number, x: Thin): Thin {
  const out = thin(outRows, x.columns);
  const sum = new Float64Array(x.columns);
  for (let row = 0; row < outRows; row += 1) {
    sum.fill(0);
    let k = 0;
    for (; k + 2 <= x.rows; k += 2) {
      const first = t[row * x.rows + k] ?? 0;
      const second = t[row * x.rows + k + 1] ?? 0;
      addTwo(sum, x, k, { first, second });
    }
    if (k < x.rows) addTwo(sum, x, k, { first: t[row * x.rows + k] ?? 0, second: 0 });
    out.values.set(sum, row * x.columns);
  }
  return out;
}

function addTwo(
  sum: Float64Array,
  { columns, values }: Thin,
  row: number,
  { first, second }: { first: number; second: number },
): void {
  const x = row * columns;
  // Without a second row the first one is read twice and counts once.
  const y = second === 0 ? x : x + columns;
  for (let i = 0; i < columns; i += 1) {
    sum[i] = (sum[i] ?? 0) + first * (values[x + i] ?? 0) + second * (values[y + i] ?? 0);
  }
}

/** `x * y` of square float64 matrices. */
export function multiplySquare(x: Float64Array, y: Float64Array, n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i += 1) {
    for (let k = 0; k < n; k += 1) {
      const factor = x[i * n + k] ?? 0;
      for (let j = 0; j < n; j += 1) {
        out[i * n + j] = (out[i * n + j] ?? 0) + factor * (y[k * n + j] ?? 0);
      }
    }
  }
  return out;
}

export function transposeSquare(x: Float64Array, n: number): Float64Array {
  return Float64Array.from(x, (_, index) => x[(index % n) * n + Math.floor(index / n)] ?? 0);
}

/**
 * Makes the rows orthonormal by modified Gram-Schmidt; a row that depends on the ones above becomes
 * zero. A second pass removes what rounding left of the first.
 */
export function orthonormaliseRows({ rows, columns, values }: Thin, passes: number): void {
  for (let row = 0; row < rows; row += 1) {
    const at = row * columns;
    const before = Math.sqrt(dot(values, at, at, columns));
    for (let pass = 0; pass < passes; pass += 1) {
      for (let above = 0; above < row; above += 1) {
        subtractProjection(values, at, above * columns, columns);
      }
    }
    const after = Math.sqrt(dot(values, at, at, columns));
    const scale = after > before * 1e-6 ? 1 / after : 0;
    for (let k = 0; k < columns; k += 1) values[at + k] = (values[at + k] ?? 0) * scale;
  }
}

function subtractProjection(values: Float32Array, x: number, y: number, length: number): void {
  const overlap = dot(values, x, y, length);
  for (let k = 0; k < length; k += 1) {
    values[x + k] = (values[x + k] ?? 0) - overlap * (values[y + k] ?? 0);
  }
}
