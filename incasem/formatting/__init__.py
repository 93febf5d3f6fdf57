"""Data formatting: conversion, CLAHE, masks, exclusion zones, export."""
