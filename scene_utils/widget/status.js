// A message that screen readers speak: the live region stays while its text changes.
function render({ model, el }) {
  el.setAttribute("role", "status");
  el.setAttribute("aria-live", "polite");
  const show = () => {
    el.textContent = model.get("text");
    el.dataset.kind = model.get("kind");
  };
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
