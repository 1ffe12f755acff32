import { createTheme, type MantineColorsTuple, Modal, Tooltip } from "@mantine/core";

const accent: MantineColorsTuple = [
  "#eef2ff",
  "#dfe5fb",
  "#bdc8f4",
  "#98a9ee",
  "#788fe8",
  "#6480e5",
  "#5874e4",
  "#4560cb",
  "#3b55b6",
  "#2e49a1",
];

/** From text to the ground, as in base.css. */
const dark: MantineColorsTuple = [
  "#e4e7eb",
  "#c2c8cf",
  "#9aa3ae",
  "#6c7580",
  "#454c57",
  "#2b3038",
  "#1f242a",
  "#15181c",
  "#0e1013",
  "#0a0c0e",
];

export const theme = createTheme({
  primaryColor: "accent",
  primaryShade: { light: 7, dark: 7 },
  colors: { accent, dark },
  fontFamily: '"Inter Variable", system-ui, sans-serif',
  fontFamilyMonospace: '"JetBrains Mono Variable", ui-monospace, monospace',
  fontSizes: { xs: "12px", sm: "13px", md: "14px", lg: "16px", xl: "20px" },
  lineHeights: { xs: "1.45", sm: "1.45", md: "1.45", lg: "1.45", xl: "1.3" },
  defaultRadius: 6,
  focusRing: "auto",
  respectReducedMotion: true,
  headings: {
    fontWeight: "600",
    sizes: { h1: { fontSize: "20px" }, h2: { fontSize: "16px" }, h3: { fontSize: "14px" } },
  },
  components: {
    Modal: Modal.extend({
      defaultProps: { closeButtonProps: { "aria-label": "Close" } },
      styles: { content: { background: "var(--card)" }, header: { background: "var(--card)" } },
    }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 400, transitionProps: { duration: 80 }, withArrow: false } }),
  },
});
