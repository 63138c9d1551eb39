import type { EnvironmentKindName } from "../../config/index.ts";
import type { EnvironmentKind } from "../kind.ts";
import { condaKind } from "./conda.ts";
import { npmKind } from "./npm.ts";
import { pathKind } from "./path.ts";
import { uvKind } from "./uv.ts";
import { venvKind } from "./venv.ts";

export const ENVIRONMENT_KIND: Readonly<Record<EnvironmentKindName, EnvironmentKind>> = {
  npm: npmKind,
  path: pathKind,
  venv: venvKind,
  uv: uvKind,
  conda: condaKind,
};
