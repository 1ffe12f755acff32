import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [react()],
  resolve: {
    alias: [
      // All of shiki's grammars would be several megabytes of files; these are the languages that get colours.
      { find: /^shiki\/langs$/, replacement: here("src/review/languages.ts") },
      { find: /^@pierre\/theming\/themes$/, replacement: here("src/review/no-themes.ts") },
      { find: /^@pierre\/highlights\/themes\/loader$/, replacement: here("src/review/no-themes.ts") },
    ],
  },
  worker: { format: "es" },
  build: {
    target: "es2023",
    manifest: "manifest.json",
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 2000,
    reportCompressedSize: false,
  },
});
