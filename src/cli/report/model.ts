import type { Span } from "../../queue/index.ts";
import type { Evaluation, Losses } from "./findings.ts";

/** One node of the composition and how it went. */
export interface ReportNode {
  readonly id: string;
  readonly instance: string;
  readonly action: string;
  readonly state: string;
  readonly needs: readonly string[];
  /** States of the items of a `for_each`, counted; null where it is none. */
  readonly items: Readonly<Record<string, number>> | null;
  readonly error: string | null;
  readonly isCached: boolean;
}

/** One job's life; `item` is its place in a `for_each`. */
export interface ReportJob {
  readonly id: string;
  readonly node: string;
  readonly item: number | null;
  readonly instance: string;
  readonly status: string;
  readonly spans: readonly Span[];
}

/** What was held at one moment, MiB. */
export interface ReportSample {
  readonly atMs: number;
  readonly ram: { readonly total: number; readonly used: number };
  readonly instances: Readonly<Record<string, number>>;
  readonly gpus: readonly {
    readonly index: number;
    readonly name: string | null;
    readonly total: number | null;
    readonly used: number | null;
    readonly instances: Readonly<Record<string, number>>;
  }[];
}

/** A decision that a worker accounted for. */
export interface ReportDecision {
  readonly ts: string;
  readonly node: string;
  readonly kind: string;
  readonly subject: string;
  readonly reason: string;
  readonly evidence: unknown;
}

/** Everything a report shows. Times are milliseconds since 1970. */
export interface ReportModel {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly nodes: readonly ReportNode[];
  readonly jobs: readonly ReportJob[];
  /** Where the time went, end to end. */
  readonly time: readonly Span[];
  readonly samples: readonly ReportSample[];
  readonly losses: readonly Losses[];
  readonly evaluations: readonly Evaluation[];
  readonly decisions: readonly ReportDecision[];
  /** Results of the nodes that nothing else uses, as text. */
  readonly results: readonly { readonly node: string; readonly text: string }[];
  readonly madeBy: string;
}
