import { CjmError, z } from "cjm-substrate/worker";

/** An answer that is an error, as the OpenAI API has them. */
export interface HttpFault {
  readonly status: number;
  readonly body: {
    readonly error: {
      readonly message: string;
      readonly type: string;
      readonly param: string | null;
      readonly code: string | null;
    };
  };
}

/** A failure of the endpoint itself. */
export class EndpointError extends Error {
  override readonly name = "EndpointError";
  readonly status: number;
  readonly code: string;
  readonly param: string | null;

  constructor(status: number, code: string, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

const STATUS = { user_input: 400, transient: 503, resource: 503, fatal: 500 } as const;

/** How a failure reads on the wire; a stack never gets there. */
export function toHttpFault(error: unknown): HttpFault {
  if (error instanceof EndpointError) {
    return fault(error.status, { message: error.message, code: error.code, param: error.param });
  }
  if (error instanceof z.ZodError) return invalidBody(error);
  if (!(error instanceof CjmError)) {
    return fault(500, { message: "The engine failed", code: "internal_error", param: null });
  }
  const { reason } = error.details;
  const code = typeof reason === "string" ? reason : error.code.toLowerCase();
  return fault(statusOf(error, code), {
    message: error.message,
    // The API's own word, which clients look for.
    code: code === "context_overflow" ? "context_length_exceeded" : code,
    param: error.fieldsInvalid[0] ?? null,
  });
}

function statusOf({ code, category }: CjmError, reason: string): number {
  if (code === "METHOD_NOT_SUPPORTED") return 501;
  if (code === "CAPABILITY_TIMEOUT") return 504;
  return reason === "adapter_unknown" ? 404 : STATUS[category];
}

function invalidBody(error: z.ZodError): HttpFault {
  const [issue] = error.issues;
  const keys = issue?.code === "unrecognized_keys" ? issue.keys : [];
  const param = [...(issue?.path ?? []), ...keys.slice(0, 1)].join(".");
  return fault(400, {
    message: `${param}: ${issue?.message ?? "invalid request"}`,
    code: keys.length > 0 ? "unsupported_parameter" : "invalid_value",
    param,
  });
}

function fault(
  status: number,
  { message, code, param }: { message: string; code: string; param: string | null },
): HttpFault {
  const type = status >= 500 ? "server_error" : "invalid_request_error";
  return { status, body: { error: { message, type, param, code } } };
}
