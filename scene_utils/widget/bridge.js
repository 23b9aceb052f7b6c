// What ipywidgets leaves out: paste and drop of a picture, files past the size of one message,
// downloads, and texts for screen readers on other widgets' parts.
const LARGEST = 6e6; // bytes sent as they are; a Jupyter server takes 10 MiB in one message
const SIDE = 2048;

async function shrunk(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return { blob, size: [bitmap.width, bitmap.height] };
}

async function send(model, file) {
  const about = { name: file.name || "pasted picture", bytes: file.size, size: null };
  let blob = file;
  if (file.size > LARGEST) {
    try {
      ({ blob, size: about.size } = await shrunk(file));
    } catch {
      blob = new Blob(); // Python says why
    }
  }
  model.send(about, undefined, [await blob.arrayBuffer()]);
}

function save({ name, mime }, buffer) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([buffer], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function render({ model, el }) {
  const input = document.createElement("input");
  Object.assign(input, { type: "file", accept: "image/*", hidden: true });
  input.addEventListener("change", () => {
    if (input.files.length) send(model, input.files[0]);
    input.value = "";
  });
  const button = document.createElement("button");
  button.className = "jupyter-button widget-button";
  button.textContent = "Open a photo";
  button.addEventListener("click", () => input.click());
  const hint = document.createElement("span");
  hint.className = "sq-hint";
  hint.textContent = "or paste or drop one";
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own paste is about cells
  el.tabIndex = -1;
  el.append(input, button, hint);

  const root = () => el.closest(".sq-app") ?? el;
  const first = (list) => [...(list ?? [])].find((file) => file instanceof File);
  const paste = (event) => {
    const at = event.target;
    const file = first(event.clipboardData?.files);
    if (!file || !(at === document.body || root().contains(at))) return;
    event.preventDefault();
    send(model, file);
  };
  const over = (event) => root().contains(event.target) && event.preventDefault();
  const drop = (event) => {
    const file = first(event.dataTransfer?.files);
    if (!file || !root().contains(event.target)) return;
    event.preventDefault();
    send(model, file);
  };
  document.addEventListener("paste", paste);
  document.addEventListener("dragover", over);
  document.addEventListener("drop", drop);

  // Other widgets' parts that have no name of their own for a screen reader.
  const name = () => {
    if (!document.querySelector("main, [role=main]")) root().setAttribute("role", "main");
    for (const image of root().querySelectorAll(".sq-draw img")) image.alt = model.get("alt");
    for (const slider of root().querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector(".noUi-handle");
      handle?.setAttribute("aria-label", slider.querySelector("label")?.textContent ?? "");
    }
  };
  let seen;
  const watch = setInterval(() => {
    if (seen || !el.isConnected) return;
    seen = new MutationObserver(name);
    seen.observe(root(), { childList: true, subtree: true });
    name();
  }, 100);
  model.on("change:alt", name);
  const take = (message, buffers) => message.save && save(message.save, buffers[0]);
  model.on("msg:custom", take);
  return () => {
    clearInterval(watch);
    seen?.disconnect();
    model.off("change:alt", name);
    model.off("msg:custom", take);
    document.removeEventListener("paste", paste);
    document.removeEventListener("dragover", over);
    document.removeEventListener("drop", drop);
  };
}

export default { render };
