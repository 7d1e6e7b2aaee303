// A run that is followed, and what it asks: polls with an entity tag, draws each form from its JSON Schema, answers.
// One file without dependencies but React. `api` is where the API is, `token` gives a bearer token for it.

import { FormEvent, useEffect, useRef, useState } from "react";

type Schema = {
  type?: string;
  title?: string;
  description?: string;
  enum?: string[];
  default?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
};
type Wait = { id: string; wait: string; run_id: string; path: string[]; label: string | null; payload: unknown };
type Asked = Wait & { workflow_id: string; answer_schema: Schema };
type Run = { run_id: string; status: string; output: unknown; version: number };
type Problem = { type: string; detail: string; errors?: { path: string; message: string }[] };
type Api = { api: string; token: () => Promise<string> };

const ENDED = ["success", "failed", "canceled"];

async function ask(at: Api, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { authorization: `Bearer ${await at.token()}`, "content-type": "application/json", ...init.headers };
  return fetch(at.api + path, { ...init, headers });
}

/** The run as it stands; asked for every two seconds, sent only where it has changed. */
export function useRun(at: Api, id: string): Run | undefined {
  const [run, setRun] = useState<Run>();
  const tag = useRef("");
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    let gone = false;
    tag.current = "";
    async function look() {
      const headers: Record<string, string> = tag.current ? { "if-none-match": tag.current } : {};
      const answer = await ask(at, `/v1/runs/${id}?fields=run_id,status,output,version`, { headers }).catch(() => null);
      if (gone) return;
      let ended = answer !== null && answer.status === 404;
      if (answer?.ok) {
        tag.current = answer.headers.get("etag") ?? "";
        const found: Run = await answer.json();
        setRun(found);
        ended = ENDED.includes(found.status);
      }
      if (!gone && !ended) timer = setTimeout(look, 2000);
    }
    look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [at.api, id]);
  return run;
}

/** What a run asks of whoever may answer; give it `useRun`'s version, so that it looks again when the run has moved. */
export function Approvals({ at, assignee, moved }: { at: Api; assignee: string; moved?: number }) {
  const [waits, setWaits] = useState<Asked[]>([]);
  const [answered, setAnswered] = useState(0);
  useEffect(() => {
    let gone = false;
    async function list() {
      const answer = await ask(at, `/v1/waits?assignee=${encodeURIComponent(assignee)}`);
      const { items }: { items: Wait[] } = await answer.json();
      const asked = await Promise.all(items.map((wait) => ask(at, `/v1/waits/${wait.id}`)));
      const open = await Promise.all(asked.filter((one) => one.ok).map((one) => one.json() as Promise<Asked>));
      if (!gone) setWaits(open);
    }
    list();
    return () => {
      gone = true;
    };
  }, [at.api, assignee, moved, answered]);
  return (
    <ul>
      {waits.map((wait) => (
        <li key={wait.id}>
          <AnswerForm at={at} wait={wait} onAnswered={() => setAnswered((n) => n + 1)} />
        </li>
      ))}
    </ul>
  );
}

/**
 * The form of one answer, which has to be an object: each of its properties gets a field.
 * The key makes a double click one answer, and one that is sent again; a second person is told who was first.
 */
function AnswerForm({ at, wait, onAnswered }: { at: Api; wait: Asked; onAnswered: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const key = useRef(crypto.randomUUID());
  const fields = Object.entries(wait.answer_schema.properties ?? {});

  async function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const given = fields.map(([name, schema]) => [name, read(schema, form.get(name))]);
    const data = Object.fromEntries(given.filter(([, value]) => value !== undefined));
    const headers = { "idempotency-key": key.current };
    const answer = await ask(at, `/v1/waits/${wait.id}/answer`, {
      method: "POST",
      headers,
      body: JSON.stringify({ data }),
    });
    if (answer.ok) return onAnswered();
    if (answer.status === 422) key.current = crypto.randomUUID(); // what comes next is another answer
    setProblem(await answer.json());
  }

  return (
    <form onSubmit={send}>
      <h3>{wait.label ?? wait.path.join(" / ")}</h3>
      <pre>{JSON.stringify(wait.payload, null, 2)}</pre>
      {fields.map(([name, schema]) => (
        <label key={name}>
          {schema.title ?? name} <Field name={name} schema={schema} required={wait.answer_schema.required?.includes(name)} />
          <small>{problem?.errors?.find((row) => row.path === name)?.message ?? schema.description}</small>
        </label>
      ))}
      {problem && <p role="alert">{problem.detail}</p>}
      <button>Answer</button>
    </form>
  );
}

function Field({ name, schema, required }: { name: string; schema: Schema; required?: boolean }) {
  if (schema.enum) {
    return (
      <select name={name} defaultValue={String(schema.default ?? schema.enum[0])}>
        {schema.enum.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </select>
    );
  }
  if (schema.type === "boolean") return <input name={name} type="checkbox" defaultChecked={schema.default === true} />;
  const type = schema.type === "integer" || schema.type === "number" ? "number" : "text";
  return <input name={name} type={type} step="any" required={required} defaultValue={String(schema.default ?? "")} />;
}

/** What was typed, as the schema wants it; undefined where nothing was, unless a default was removed. */
function read(schema: Schema, typed: FormDataEntryValue | null): unknown {
  if (schema.type === "boolean") return typed !== null;
  if (typed === "" && (schema.default ?? "") !== "") return schema.type === "string" ? "" : null;
  if (typed === null || typed === "") return undefined;
  return schema.type === "integer" || schema.type === "number" ? Number(typed) : typed;
}
