/**
 * The instances of `pipeline.bindings`, empty here: the file that `cjm-ctl types` writes adds the
 * project's own by `declare module "cjm-substrate"`.
 */
// oxlint-disable-next-line typescript/no-empty-interface -- filled by declaration merging
export interface CapabilityBindings {}
