import * as THREE from "three";
import { SparkRenderer, SplatMesh } from "/node_modules/@sparkjsdev/spark/dist/spark.module.js";
import { aim, mesh } from "./meshes.js";

export async function open(url, suffix, place) {
  const renderer = new THREE.WebGLRenderer({ antialias: suffix === ".glb" });  // of meshes alone, as Spark advises
  renderer.setSize(256, 256);
  place.append(renderer.domElement);
  const scene = new THREE.Scene();
  scene.background = new THREE.Color("white");
  const camera = new THREE.PerspectiveCamera(35, 1, 0.1, 100);
  scene.add(new SparkRenderer({ renderer }));
  const splats = suffix === ".glb" ? await mesh(url) : new SplatMesh({ url });
  await splats.initialized;
  scene.add(splats);
  return view => { aim(camera, view); renderer.render(scene, camera); };
}
