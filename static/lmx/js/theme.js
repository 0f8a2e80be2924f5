// Runs before the page is painted, so that a chosen theme does not flash. A classic script on purpose.
(() => {
  try {
    const theme = localStorage.getItem("lmx-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is switched off: the system's setting holds.
  }
})();
