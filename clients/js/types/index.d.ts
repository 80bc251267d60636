/** What was received cannot be used: it was altered, or made with other keys. */
export class Refused extends Error {}

/** What is wrong with a pairing link; `message` is for people. */
export class LinkError extends Error {}

/** Why there is no answer, or none to its end. */
export class AskError extends Error {
  /**
   * The relay's or the agent's code (`RATE_LIMITED`, `BACKEND_ERROR`, ...), or `CLOSED`, `NOT_OPENED`, `FULL`, `TIMEOUT`,
   * `UNKNOWN` (it is not known whether the agent has the question), `INTERRUPTED`, `AGENT_RESTARTED`.
   */
  readonly code: string;
  /** When it may be tried again. */
  readonly retryAfterMs?: number;
}

export interface WebCrypto {
  subtle: object;
  getRandomValues(bytes: any): any;
}

/** As much of the browser's `WebSocket` as is used. */
export interface SocketLike {
  send(data: string): void;
  close(code?: number): void;
}

/** Puts in what the engine lacks, before anything else is made: a native `crypto`, a `WebSocket`. */
export function configure(parts: { crypto?: WebCrypto; WebSocket?: new (url: string) => SocketLike }): void;

export interface Pairing {
  /** Of the relay's WebSocket. */
  url: string;
  token: string;
  /** The pairing secret: 43 characters of base64url. */
  k?: string;
  /** By which a device knows its agent. */
  a?: string;
}

/** Reads a link for apps or browsers. Throws `LinkError`. */
export function parseLink(link: string): Pairing;
/** Both forms of a pairing's link. They are passwords, and belong into no log. */
export function formatLink(pairing: Pairing): { app: string; browser: string | null };
/** Registers a new pairing at a relay (`wss://relay.example.com`), with a secret that the relay never sees. */
export function pair(relay: string, options?: { adminKey?: string; fetch?: typeof fetch }): Promise<{ app: string; browser: string | null }>;

/** Where a phone's state is kept. It holds keys: use the platform's keystore. */
export type Storage =
  | { clones?: false; load(): Promise<string | null>; save(state: string): Promise<void> }
  /** For storage that takes what `structuredClone` takes, such as IndexedDB: private keys then never leave the engine. */
  | { clones: true; load(): Promise<unknown>; save(state: unknown): Promise<void> };

/** Storage in a browser's IndexedDB. */
export function indexedDbStorage(name?: string): Storage;

export type Security =
  /** There is no agent. */
  | { name: 'none' }
  /** Keys are being agreed upon. */
  | { name: 'pending' }
  /** Nobody else can read or change what is said. `resumes`: neither can a lost connection lose it. */
  | { name: 'verified'; resumes: boolean }
  /** Encrypted; people may compare the fingerprint. */
  | { name: 'unverified'; fingerprint: string }
  /** Not encrypted: nothing is sent until `allowPlain()`. */
  | { name: 'plain'; why: string }
  /** A device asks the agent to let it in. */
  | { name: 'enrolling' }
  /** A person compares the code with the agent's, and lets the device in. */
  | { name: 'waiting'; code: string }
  /** A device that has its keys; the agent is not there. */
  | { name: 'away' }
  /** Nothing is sent. `why` says what for: `mismatch`, `secret`, `tampered`, `link`, `agent`, ... */
  | { name: 'refused'; why: string };

export interface PhoneState {
  connection: 'connecting' | 'open' | 'waiting' | 'ended' | 'stopped';
  /** Of `ended`: `replaced` (another client has the pairing), `revoked`, `refused`, ... It does not connect again by itself. */
  why?: string;
  /** Of `waiting`: Unix milliseconds of the next try. */
  retryAt?: number;
  agentOnline: boolean;
  /** Whether a question would leave now. */
  ready: boolean;
  security: Security;
}

export interface Activity {
  status?: string;
  tool?: string;
  message?: string;
  detail?: string;
  call_id?: string;
  ref?: string;
  chat_id?: string;
}

/** An answer: await it for the whole text, or iterate over its pieces. */
export interface Answer extends PromiseLike<string>, AsyncIterable<string> {
  /** Of the question. */
  readonly id: string;
  readonly chatId?: string;
  /** What has come of it. When it is over it takes precedence over the pieces. */
  readonly text: string;
  readonly state: 'waiting' | 'streaming' | 'done' | 'failed';
  readonly cancelled: boolean;
  /** Why it is not complete: `length`, `refusal`, ... */
  readonly finish?: string;
  readonly notice?: string;
  readonly error?: AskError;
  /** Tells the agent to stop; the text so far is the answer. */
  cancel(): void;
  catch<T>(rejected: (error: AskError) => T): Promise<string | T>;
  finally(over: () => void): Promise<string>;
}

/** A question of the agent. */
export interface Question {
  readonly ask: string;
  readonly text: string;
  readonly options: { id: string; label: string; kind?: string }[];
  readonly free: boolean;
  readonly default?: string;
  /** Unix milliseconds, by the agent's clock. */
  readonly expiresAt?: number;
  readonly chatId?: string;
  readonly ref?: string;
  readonly callId?: string;
  readonly outcome?: string;
  readonly over: Promise<{ outcome: string; option?: string; text?: string; notice?: string }>;
  /** The `id` of an option, or a text where `free`. */
  reply(given: string | { option: string } | { text: string }): void;
}

export interface ImageToSend {
  /** `image/jpeg` where it is missing. */
  mime?: string;
  /** Bytes, or base64. */
  data: Uint8Array | string;
}

export interface PhoneEvents {
  state: (state: PhoneState) => void;
  /** The agent speaks first, or goes on with what was asked before this process. */
  answer: (answer: Answer) => void;
  /** The agent asks. As long as nobody listens it asks in plain text. */
  question: (question: Question, answer: Answer | null) => void;
  /** What the agent is doing meanwhile. */
  activity: (activity: Activity, answer: Answer | null) => void;
  /** The agent has the message with this id. */
  delivered: (id: string) => void;
  /** Messages of other types. */
  message: (type: string, payload: Record<string, unknown>) => void;
  /** The agent has let this device in. */
  enrolled: () => void;
  /** So many messages never came. */
  missed: (count: number) => void;
  /** A message could not be read, and was dropped. */
  unreadable: (reason: string) => void;
  error: (error: Error) => void;
}

export class Phone {
  /**
   * Connects, and comes back by itself until it is closed.
   * @param link a pairing link; null where `storage` has the pairing
   */
  constructor(
    link: string | null,
    options?: {
      storage?: Storage;
      /** What the device is called, where the agent shows its devices. */
      name?: string;
      /** `android`, `ios`, ... */
      platform?: string;
      /** Called before the agent hears that its messages have arrived: store what you show. */
      keep?: () => Promise<void> | void;
      /** Whether to chat with an agent that does not encrypt. */
      plain?: boolean;
    },
  );
  /** Resolves when the storage has been read; rejects where there is no pairing. */
  readonly opened: Promise<void>;
  readonly state: PhoneState;
  /** Returns what takes the listener off. */
  on<Name extends keyof PhoneEvents>(name: Name, listener: PhoneEvents[Name]): () => void;
  ask(text: string, options?: { images?: ImageToSend[]; chatId?: string; signal?: AbortSignal }): Answer;
  /** Sends a message of any type; returns its id. */
  send(type: string, payload?: object): string;
  /** Sends a request (`chat.history`, `agent.list`, `system.status`) and resolves to the payload of its result. */
  request(type: string, payload?: object, options?: { timeoutMs?: number }): Promise<Record<string, unknown>>;
  /** The app is in front again, or the network is back. */
  wake(): void;
  /** The app goes to the background. */
  sleep(): void;
  /** The user has read that nothing is encrypted, and wants to chat all the same. */
  allowPlain(): void;
  close(): void;
}

export interface AgentQuestion {
  readonly id: string;
  readonly text: string;
  readonly images: { mime: string; data: Uint8Array }[];
  readonly chatId?: string;
  /** Aborted by the next question of the conversation, or when the person stops the answer. */
  readonly signal: AbortSignal;
  /** Asks the person. Resolves to an option's id, to a text, or to null (or `default`) where nobody answers. */
  ask(
    text: string,
    options?: {
      options?: (string | { id: string; label: string; kind?: string })[];
      free?: boolean;
      default?: string;
      timeoutMs?: number;
    },
  ): Promise<string | null>;
  /** Shows what the agent is doing. */
  activity(activity: Activity): void;
}

export interface AgentState {
  connection: 'connecting' | 'open' | 'waiting' | 'ended' | 'stopped';
  why?: string;
  phoneOnline: boolean;
  /** Of the encryption: 2 is verified, 1 encrypted, 0 none (yet). */
  version: 0 | 1 | 2;
  /** Of version 1. */
  fingerprint?: string;
}

export interface AgentEvents {
  state: (state: AgentState) => void;
  message: (type: string, payload: Record<string, unknown>, id: string) => void;
  missed: (count: number) => void;
  error: (error: unknown) => void;
}

export class Agent {
  constructor(
    link: string,
    options: {
      answer(question: AgentQuestion): string | Promise<string> | AsyncIterable<string> | Iterable<string>;
      name?: string;
    },
  );
  readonly opened: Promise<void>;
  readonly state: AgentState;
  on<Name extends keyof AgentEvents>(name: Name, listener: AgentEvents[Name]): () => void;
  /** Speaks without having been asked. Returns whether it is on its way. */
  say(text: string, options?: { chatId?: string }): boolean;
  wake(): void;
  close(): void;
}
