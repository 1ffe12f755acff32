// Apart from vite.config.ts, since who only builds the pages has no vitest.
import { defineConfig, mergeConfig } from "vitest/config";
import config from "./vite.config";

export default mergeConfig(config, defineConfig({ test: { include: ["tests/**/*.test.ts"], environment: "node" } }));
