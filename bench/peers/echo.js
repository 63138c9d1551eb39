// What piscina looks for is the default export.
export default (/** @type {string} */ value) => value;
