// Search in pages opened from a folder: browsers start no worker there, so its script runs in a hidden frame.
if (location.protocol === "file:") {
  const load = (frame, source) => new Promise((resolve) => {
    const script = frame.document.createElement("script")
    script.src = source
    script.onload = script.onerror = resolve
    frame.document.body.append(script)
  })

  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(source) {
      super()
      this.element = document.createElement("iframe")
      this.element.hidden = true
      document.body.append(this.element)
      this.frame = this.element.contentWindow
      this.frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame.importScripts = (...sources) =>
        sources.reduce((before, next) => before.then(() => load(this.frame, next)), Promise.resolve())
      this.loaded = load(this.frame, String(source))
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.dispatchEvent(new this.frame.MessageEvent("message", { data })))
    }

    terminate() {
      this.element.remove()
    }
  }
}
