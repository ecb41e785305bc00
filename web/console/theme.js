// Light, dark, or as the system has it. Not a module: it runs before the page is drawn.
(() => {
  const root = document.documentElement;
  const store = (theme) => {
    try {
      if (theme === undefined) return localStorage.getItem("rejoin-theme");
      if (theme) localStorage.setItem("rejoin-theme", theme);
      else localStorage.removeItem("rejoin-theme");
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    return null;
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  show(store());
  addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = root.dataset.theme ?? "";
    select.addEventListener("change", () => {
      show(select.value);
      store(select.value);
    });
  });
})();
