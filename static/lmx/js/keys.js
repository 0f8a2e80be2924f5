// Keys that work on every page.

const writes = (element) => element?.matches?.("input, textarea, select, [contenteditable]");

export function installKeys() {
  const dialog = document.getElementById("keys");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.ctrlKey || event.metaKey || event.altKey || writes(event.target)) return;
    event.preventDefault();
    if (!dialog.open) dialog.showModal();
  });
}
