// The one websocket of a page: topics in, batches out, and the truth about the connection.

const SILENCE_MS = 4_000;
const RETRY_MS = [500, 1_000, 2_000, 4_000];

class Live {
  #handlers = new Map();
  #linkHandlers = [];
  #gapHandlers = [];
  #since = {};
  #socket = null;
  #attempts = 0;
  #heard = 0;
  #link = "connecting";

  // fn(data, frame) for every state of the topic, or every entry of a log topic.
  on(topic, fn) {
    if (!this.#handlers.has(topic)) this.#handlers.set(topic, []);
    this.#handlers.get(topic).push(fn);
  }

  // fn(word, secondsSinceLastWord): "connecting", "live", "slow" or "lost".
  onLink(fn) {
    this.#linkHandlers.push(fn);
  }

  // fn(): something may have been missed; fetch again what is needed.
  onGap(fn) {
    this.#gapHandlers.push(fn);
  }

  // All entries of a log topic the server has, not only new ones.
  fromTheStart(topic) {
    this.#since[topic] = 0;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#visibilityChanged());
    setInterval(() => this.#watch(), 1_000);
    this.#connect();
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      const resumed = this.#heard > 0;
      this.#attempts = 0;
      this.#send({ type: "subscribe", topics: [...this.#handlers.keys()], since: this.#since, visible: !document.hidden });
      if (resumed) this.#missed();
    });
    socket.addEventListener("message", (event) => this.#receive(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.#closed(socket));
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #receive(batch) {
    this.#heard = performance.now();
    for (const frame of batch.frames) this.#dispatch(frame);
    this.#send({ type: "ack", n: batch.n });
    this.#tell("live");
  }

  #dispatch(frame) {
    if (frame.seq !== undefined) this.#since[frame.topic] = frame.seq;
    if (frame.type === "gap") {
      this.#missed();
      return;
    }
    for (const fn of this.#handlers.get(frame.topic) ?? []) {
      try {
        fn(frame.data, frame);
      } catch (error) {
        console.error(frame.topic, error);
      }
    }
  }

  #missed() {
    for (const fn of this.#gapHandlers) fn();
  }

  #closed(socket) {
    if (socket !== this.#socket) return;
    this.#tell(this.#heard ? "lost" : "connecting");
    const wait = RETRY_MS[Math.min(this.#attempts, RETRY_MS.length - 1)];
    this.#attempts += 1;
    setTimeout(() => this.#connect(), wait * (0.8 + 0.4 * Math.random()));
  }

  #visibilityChanged() {
    this.#send({ type: "visible", visible: !document.hidden });
    if (!document.hidden && this.#heard) {
      this.#heard = performance.now();
      this.#missed();
    }
  }

  #watch() {
    if (document.hidden || !this.#heard) return;
    const silent = performance.now() - this.#heard;
    if (this.#link === "lost") this.#tell("lost");
    else if (silent > SILENCE_MS) this.#tell("slow");
  }

  #tell(word) {
    this.#link = word;
    const age = this.#heard ? (performance.now() - this.#heard) / 1000 : 0;
    for (const fn of this.#linkHandlers) fn(word, age);
  }
}

export const live = new Live();
