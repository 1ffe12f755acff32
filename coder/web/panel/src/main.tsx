import "./app/nonce";
import "./app/layers.css";
import "@mantine/core/styles.layer.css";
import "@mantine/spotlight/styles.layer.css";
import "@fontsource-variable/inter";
import "@fontsource-variable/jetbrains-mono";
import "./app/base.css";
import { MantineProvider } from "@mantine/core";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { createRoot } from "react-dom/client";
import { queries } from "./api/queries";
import { Gate } from "./app/login";
import { nonce } from "./app/nonce";
import { router } from "./app/router";
import { Said } from "./app/said";
import { theme } from "./app/theme";

// Another build serves this address by now, so that a part of ours is gone: the page is loaded anew, and drafts are kept. Once only,
// since what is missing then as well is not missing for that reason.
window.addEventListener("vite:preloadError", (event) => {
  if (Date.now() - Number(sessionStorage.getItem("coder.anew") ?? 0) < 10_000) return;
  sessionStorage.setItem("coder.anew", String(Date.now()));
  event.preventDefault();
  location.reload();
});

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no element #root.");
createRoot(root).render(
  <MantineProvider theme={theme} defaultColorScheme="auto" getStyleNonce={() => nonce}>
    <QueryClientProvider client={queries}>
      <Gate>
        <RouterProvider router={router} />
      </Gate>
      <Said />
    </QueryClientProvider>
  </MantineProvider>,
);
