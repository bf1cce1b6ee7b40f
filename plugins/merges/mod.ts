/**
 * The merges that come with Limbeck.
 *
 * @module
 */
import type { Merge } from "../../src/registry/contract.ts";
import arceeFusion from "./arcee_fusion.ts";
import breadcrumbs from "./breadcrumbs.ts";
import breadcrumbsTies from "./breadcrumbs_ties.ts";
import dareLinear from "./dare_linear.ts";
import dareTies from "./dare_ties.ts";
import della from "./della.ts";
import dellaLinear from "./della_linear.ts";
import karcher from "./karcher.ts";
import linear from "./linear.ts";
import modelStock from "./model_stock.ts";
import multislerp from "./multislerp.ts";
import nearswap from "./nearswap.ts";
import nuslerp from "./nuslerp.ts";
import passthrough from "./passthrough.ts";
import rTsvm from "./r_tsvm.ts";
import sce from "./sce.ts";
import slerp from "./slerp.ts";
import taskArithmetic from "./task_arithmetic.ts";
import ties from "./ties.ts";
import tsvM from "./tsv_m.ts";

/** Every built-in merge. */
export const merges: readonly Merge[] = [
  linear,
  taskArithmetic,
  slerp,
  nuslerp,
  multislerp,
  karcher,
  ties,
  dareLinear,
  dareTies,
  della,
  dellaLinear,
  breadcrumbs,
  breadcrumbsTies,
  modelStock,
  sce,
  tsvM,
  rTsvm,
  nearswap,
  arceeFusion,
  passthrough,
];
