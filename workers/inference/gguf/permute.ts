/**
 * Reorders the rows of a query or key projection from Hugging Face's rotary layout (first halves of a
 * head, then second halves) to the one that llama.cpp's `llama` architecture rotates (pairs beside
 * each other): row `2i + j` of a head is row `j * size / 2 + i`.
 *
 * Source: `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py.
 *
 * @param rows number of rows; `values` holds them one after another
 * @param heads heads that share the rows evenly, each of an even number of rows
 */
export function permuteHeads(values: Float32Array, rows: number, heads: number): Float32Array {
  const size = rows / heads;
  const width = values.length / rows;
  if (!Number.isInteger(size) || size % 2 !== 0 || !Number.isInteger(width)) {
    throw new RangeError(`${rows} rows of ${heads} heads cannot be permuted`);
  }
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) {
    const head = Math.floor(row / size);
    const within = row % size;
    const from = head * size + (within % 2) * (size / 2) + Math.floor(within / 2);
    out.set(values.subarray(from * width, (from + 1) * width), row * width);
  }
  return out;
}
