// The HTTP API as the page uses it: nothing here that other callers do not have.

const STORED = "fathom-key";

export class Refusal extends Error {
  constructor(status, { code = "broken", message = "", field = null } = {}) {
    super(message || `the server answered ${status}`);
    Object.assign(this, { status, code, field });
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (value) => (value ? sessionStorage.setItem(STORED, value) : sessionStorage.removeItem(STORED)),
};

function headers(more = {}) {
  return key.get() ? { ...more, Authorization: `Bearer ${key.get()}` } : more;
}

// A request with the key, whatever the answer is.
export const send = (path, options = {}) => fetch(path, { ...options, headers: headers(options.headers) });

async function asked(path, options = {}) {
  const response = await send(path, options);
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Refusal(response.status, body.error);
  }
  return response;
}

export const json = async (path) => (await asked(path)).json();
export const text = async (path) => (await asked(path)).text();
export const cancel = (id) => asked(`v1/requests/${encodeURIComponent(id)}`, { method: "DELETE" });

// The events of a request, as objects with typed arrays in place of tensors. Raises Refusal, also for a
// stream that ends without `done`.
export async function* stream(body, id, signal) {
  const response = await asked("v1/infer", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json", Accept: "application/vnd.fathom.frames", "X-Request-Id": id },
    body: JSON.stringify(body),
  });
  let held = new Uint8Array(0);
  const reader = response.body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refusal(0, { message: "the connection ended before the answer came; try again" });
    held = joined(held, value);
    const { events, used } = framesOf(held);
    held = held.subarray(used);
    for (const event of events) {
      if (event.event === "error") throw new Refusal(response.status, event.error);
      yield event;
      if (event.event === "done") return;
    }
  }
}

function joined(a, b) {
  if (!a.length) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

// u32 length | JSON | tensors, as often as it is there whole.
function framesOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const events = [];
  let used = 0;
  while (bytes.length - used >= 4) {
    const length = view.getUint32(used, true);
    const start = used + 4 + length;
    if (bytes.length < start) break;
    const event = JSON.parse(new TextDecoder().decode(bytes.subarray(used + 4, start)));
    const tensors = event.event === "error" ? [] : tensorsOf(event);
    const end = tensors.reduce((sum, tensor) => sum + tensor.byte_size, start);
    if (bytes.length < end) break;
    let place = start;
    for (const tensor of tensors) {
      tensor.values = valuesOf(tensor.dtype, bytes.slice(place, place + tensor.byte_size).buffer);
      place += tensor.byte_size;
    }
    events.push(event);
    used = end;
  }
  return { events, used };
}

function tensorsOf(part) {
  if (part === null || typeof part !== "object") return [];
  if ("byte_size" in part) return [part];
  return Object.values(part).flatMap(tensorsOf);
}

function valuesOf(dtype, buffer) {
  if (dtype === "int64") return Float32Array.from(new BigInt64Array(buffer), Number);
  const kinds = { float32: Float32Array, int32: Int32Array, bool: Uint8Array, float16: globalThis.Float16Array };
  return Float32Array.from(new (kinds[dtype] ?? Uint8Array)(buffer));
}
