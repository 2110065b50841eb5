// Search runs in a Worker, which browsers refuse to pages opened from the disk (file:). There a
// hidden frame takes its place: it loads the same script and is called directly.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = null
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = frame.contentWindow
      inside.answer = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      inside.load = (...urls) => Promise.all(urls.map(one => new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        script.src = one
        script.onload = done
        script.onerror = failed
        inside.document.documentElement.append(script)
      })))
      inside.postMessage = inside.answer
      inside.importScripts = inside.load
      this.ready = inside.load(new URL(url, document.baseURI).href).then(() => inside)
    }

    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }

    terminate() {}
  }
}
