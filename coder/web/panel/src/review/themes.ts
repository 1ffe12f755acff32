/**
 * The colours of code in diffs: GitHub's high-contrast themes, which stay readable on the colours of added and removed lines too,
 * but for one grey of the light one.
 */
import { registerCustomTheme } from "@pierre/diffs";

const FAINT = "#66707b";
const READABLE = "#4b535d";

registerCustomTheme("coder-light", async () => {
  const { default: theme } = await import("@shikijs/themes/github-light-high-contrast");
  const tokenColors = theme.tokenColors?.map((each) =>
    each.settings.foreground === FAINT ? { ...each, settings: { ...each.settings, foreground: READABLE } } : each,
  );
  return {
    ...theme,
    name: "coder-light",
    colors: { ...theme.colors, "editor.background": "#ffffff" },
    ...(tokenColors && { tokenColors }),
  };
});
registerCustomTheme("coder-dark", async () => {
  const { default: theme } = await import("@shikijs/themes/github-dark-high-contrast");
  return { ...theme, name: "coder-dark", colors: { ...theme.colors, "editor.background": "#15181c" } };
});

export const THEMES = { light: "coder-light", dark: "coder-dark" };
