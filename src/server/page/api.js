/** Requests to the service. */

/** What the service refuses. `param` is the path of the field that is wrong. */
export class ApiError extends Error {
  constructor(status, { message, param, code, problems }) {
    super(message);
    this.status = status;
    this.code = code;
    this.problems = problems ?? (param ? [{ param, message }] : []);
  }
}

/** Sends a request; returns the answer's JSON. A form is sent as it is, any other body as JSON. */
export async function api(path, { method = "GET", body, signal } = {}) {
  const isJson = body !== undefined && !(body instanceof FormData);
  const response = await fetch(path, {
    method,
    signal,
    headers: isJson ? { "Content-Type": "application/json" } : {},
    body: isJson ? JSON.stringify(body) : body,
  });
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : await response.json();
}

/** The error that an answer tells of. */
export async function failure(response) {
  const told = await response.json().catch(() => null);
  return new ApiError(response.status, told?.error ?? { message: `the service answers ${response.status}` });
}
