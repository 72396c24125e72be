// Search runs in a worker, and browsers allow none to pages opened from disk. There it runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inner = frame.contentWindow;
      const load = (src) => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src, onload: done, onerror: failed });
        inner.document.body.appendChild(script);
      });
      inner.importScripts = (...all) => all.reduce((before, src) => before.then(() => load(src)), Promise.resolve());
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const ready = load(new URL(url, location.href).href);
      this.postMessage = (data) => ready.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })));
      this.terminate = () => frame.remove();
    }
  };
}
