// Light or dark: as the system has it, until somebody says otherwise in this tab.

const STORED = "fathom-theme";

function use(theme) {
  document.documentElement.dataset.theme = theme;
  sessionStorage.setItem(STORED, theme);
}

export function startTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  use(sessionStorage.getItem(STORED) ?? system);
  button.addEventListener("click", () => use(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}
